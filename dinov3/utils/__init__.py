"""What both trees share: files, configuration, commands, processes, devices."""
