"""The journal from the script's side: keys of tasks, stored results served, new ones watched."""
