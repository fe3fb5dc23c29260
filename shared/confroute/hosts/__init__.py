"""What every host shares: asks become calls, options are read, answers are understood, in one place each."""
