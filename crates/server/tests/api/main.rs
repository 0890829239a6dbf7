//! The server over HTTPS, as its clients and those who mean it harm see it.

mod administration;
mod edge;
mod resources;
mod sensors;
mod sign_in;
mod support;
mod user_context;
