//! A whole sensor against a server of the protocol.

#[path = "../support/hosts.rs"]
mod hosts;
mod isolation;
mod killed;
mod live;
mod orders;
mod package;
mod protocol;
mod quarantine;
mod restriction;
mod scan;
#[path = "../support/steps.rs"]
mod steps;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/world.rs"]
mod world;
