mod fuzz;
mod lifecycle;
mod model;
mod registers;
