"""What models cost: the catalog, the estimate before a call, the cost after it."""
