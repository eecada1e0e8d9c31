mod bed;
mod escapes;
mod hostile;
mod read_only;
mod requests;
mod takeover;
