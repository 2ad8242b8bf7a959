"""Whether what neighbours send is seen in what cells express."""
