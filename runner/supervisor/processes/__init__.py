"""Worker processes: started by spawning or forking, connected, and limited in RAM by a control group."""
