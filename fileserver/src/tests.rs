//! The tree, as clients use it.

mod escapes;
mod files;
mod successor;
mod support;
