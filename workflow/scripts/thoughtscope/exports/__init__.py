"""What a study has, in the forms that other tools read. Nothing is uploaded."""
