//! Framing, listeners and the connection loop: the only crate that opens sockets.
