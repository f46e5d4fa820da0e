"""The story that `extauthz demo` plays, and the small upstream that it plays it against."""
