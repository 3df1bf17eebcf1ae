output "role_arns" {
  description = "For the workflows: role of each job (image: null where there is no registry)."
  value = {
    plan  = aws_iam_role.plan.arn
    image = one(aws_iam_role.image[*].arn)
    apply = aws_iam_role.apply.arn
  }
}
