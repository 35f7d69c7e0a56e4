//! What happens when things break: origins, descriptors, disks, the process itself. What counts is what
//! arrives at the origins, not only what clients are told.

mod disk;
mod kill;
mod origins;
mod process;
