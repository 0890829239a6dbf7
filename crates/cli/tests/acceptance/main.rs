//! The product as its users meet it: the program `vigie`, started as they start it.

mod clients;
mod durability;
mod kills;
mod pages;
mod orders;
mod recordings;
mod start;
mod support;
mod walk;
