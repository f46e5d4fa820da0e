"""Where money is held and booked: one protocol, several stores."""
