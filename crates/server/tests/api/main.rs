//! The server over HTTPS, as its clients and those who mean it harm see it.

mod administration;
mod alerts;
mod catalogue;
mod connectors;
mod detections;
mod edge;
mod functions;
mod gathered;
mod indicators;
mod investigations;
mod library;
mod live_response;
mod machines;
mod odata;
mod operations;
mod real_sensor;
mod resources;
mod responses;
mod sensors;
mod service;
mod sightings;
mod sign_in;
mod support;
mod user_context;
