//! What a guest's first root is made of: the archive that the kernel unpacks, and the kernel's modules
//! in the order in which they load.
#![forbid(unsafe_code)]

mod archive;
mod modules;

pub use archive::Archive;
pub use modules::{Modules, module_name};
