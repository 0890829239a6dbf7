//! The product as its users meet it: the program `vigie`, started as they start it.

mod agreement;
mod clients;
mod durability;
mod kills;
mod orders;
mod pages;
mod recordings;
mod start;
mod support;
mod walk;
