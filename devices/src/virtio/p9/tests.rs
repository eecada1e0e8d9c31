mod bed;
mod hostile;
mod messages;
mod takeover;
