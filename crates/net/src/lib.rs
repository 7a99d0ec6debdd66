//! The only crate that opens sockets. [`server`] accepts connections, reads frames within limits and writes replies in
//! request order; [`client`] is the other end of the same framing; [`api`] is the trait through which everything above the
//! broker reaches data, over TCP or in process.

pub mod admission;
pub mod api;
pub mod client;
pub mod memory;
pub mod outbox;
pub mod reply_memory;
pub mod server;
