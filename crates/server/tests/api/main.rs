//! The server over HTTPS, as its clients and those who mean it harm see it.

mod administration;
mod edge;
mod library;
mod live_response;
mod real_sensor;
mod resources;
mod responses;
mod sensors;
mod sign_in;
mod support;
