//! Tests of the database of tokens.
