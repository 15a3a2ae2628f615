/** The worker of the page: nothing that computes runs where the page is drawn. */
import {expose} from 'comlink';
import {Engine} from './engine';

expose(new Engine());
