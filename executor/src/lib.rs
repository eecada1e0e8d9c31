//! `executor`
