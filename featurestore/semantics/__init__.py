"""What a value is.

A feature value is a function of a key and an instant. It is computed from the rows known at that instant, and from
nothing else. Each rule of that function is stated once in this package, its SQL form beside its Python form.
"""
