//! The Storage says on which backend blobs lie and how they are looked after. It needs the StorageBackend that it names. Whoever
//! moves bytes is told by it, and works by itself; this kind only decides where to.

pub mod apply;
pub mod check;
pub mod inputs;
pub mod observe;
pub mod plan;
pub mod spec;
#[cfg(test)]
mod tests;
