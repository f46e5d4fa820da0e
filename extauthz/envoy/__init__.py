"""What runs inside Envoy: the bootstrap that puts extauthz into its filter chain, and the meter."""
