mod bed;
mod crash;
mod ends;
mod flow;
mod hostile;
mod messages;
mod opening;
