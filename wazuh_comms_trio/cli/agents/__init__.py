"""Which agents an operator means: by name, or by what they are like."""
