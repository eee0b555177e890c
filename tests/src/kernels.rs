//! The product on kernels that this machine does not run: `cargo xtask kernels`.
//!
//! A `Machine` is QEMU with a kernel of a distribution and an `initramfs` of a few programs. The agent runs in it;
//! the client and the servers run in network namespaces of the host (`Network`), and are connected to the guest's NICs
//! by taps. `Guest` is the agent in there. `checks` are what has to hold on every kernel.

pub mod checks;
mod guest;
mod image;
mod initramfs;
mod machine;
mod modules;
mod network;
mod scene;
mod traffic;

pub use image::Image;
