/** The Karma entry. The backends come first: specs read them while they load. */
import './runner/backends';
import 'all-specs';
