//! The decisions of the kind, one by one.
