"""How sure the numbers are: image-clustered bootstrap, paired differences, ranks with ties."""
