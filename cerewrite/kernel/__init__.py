"""The numerics of the closed form: moments, expectations, influence and scattering."""
