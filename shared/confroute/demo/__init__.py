"""Real calls on local models: calibrate on a few questions, then route others through both hosts."""
