mod fuzz;
mod lifecycle;
mod model;
mod pause;
mod registers;
mod succession;
