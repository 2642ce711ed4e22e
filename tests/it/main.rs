//! The only integration test binary: it links once, and `tidy` sees that no file is forgotten.

mod adoption;
mod bad;
mod change;
mod chaos;
mod continuous;
mod demo;
mod examples;
mod faults;
mod health;
mod hostile;
mod hours;
mod hours_sim;
mod keeper;
mod limits;
mod manifests;
mod noise;
mod read;
mod real;
mod requests;
mod schemas;
mod service;
mod sim;
mod stage;
mod tidy;
mod trees;
mod upgrade;
