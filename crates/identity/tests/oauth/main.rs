//! The authorization server against its checklist; `coverage` tells which test covers which number.

mod access;
mod authorization;
mod client_credentials;
mod clients;
mod consent;
mod coverage;
mod devices;
mod discovery;
mod errors;
mod operation;
mod passwords;
mod refresh;
mod sessions;
mod signer;
mod support;
mod tokens;
mod transport;
