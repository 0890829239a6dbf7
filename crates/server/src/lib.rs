//! The server: sign-in, the resource API, the sensors' endpoints and the administration API on one
//! TLS listener.

mod edge;
mod features;
mod http_server;
mod odata;
mod refusal;
mod start;
mod state;
mod tls;

pub use start::{Administration, FirstStart, Server, ServerConfig, ServerHandle, StartError};
