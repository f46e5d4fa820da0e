"""The APIs that clients speak, as they are documented: what is asked, what is answered, and what that must cost."""
