//! What two processes of Vigie must agree on: the sensor protocol, the API's entities and the
//! catalogue of facts (operations, permissions, errors, hunting tables).

pub mod administration;
pub mod clock;
pub mod detection;
pub mod directory;
pub mod function;
pub mod operations;
pub mod resources;
pub mod sensor;
pub mod service;
pub mod tables;
