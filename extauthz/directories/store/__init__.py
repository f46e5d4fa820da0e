"""The directory in the store: keys and payers that operators create, change and revoke while servers run."""
