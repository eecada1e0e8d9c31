//! `devices`
