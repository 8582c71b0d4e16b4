"""Recordings: readers, the simulator, windows, splits, the leak guard and batch-native loaders."""
