/** The Karma entry. The backends come first: specs read them while they load. */
import './support/backends';
import 'all-specs';
