mod bed;
mod escapes;
mod hostile;
mod owners;
mod read_only;
mod requests;
mod takeover;
