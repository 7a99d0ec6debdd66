//! The one table of config keys and what is parsed with it.
