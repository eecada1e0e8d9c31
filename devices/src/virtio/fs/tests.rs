mod bed;
mod hostile;
mod requests;
mod takeover;
