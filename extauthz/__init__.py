"""A budget gate for LLM traffic behind Envoy's ext_authz filter."""
